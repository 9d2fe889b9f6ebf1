"""Tables of other tools, brought into the store by a mapping: what each column is (mapping), reading it (table), runs of it (rows, bring)."""
