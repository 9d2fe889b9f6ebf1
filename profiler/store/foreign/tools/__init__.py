"""Files of other load generators, one module a tool: what recognises the file, its requests, its own figures with their formulas."""
