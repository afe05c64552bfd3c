"""A configuration and its models, their outputs and reports: each made once."""
