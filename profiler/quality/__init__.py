"""Is what is served still good? Log-likelihood of a text and answers to examples, through the same server that is timed."""
