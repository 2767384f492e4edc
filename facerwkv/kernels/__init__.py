"""The recurrences: each file holds a reference that is the definition, fast forms of it, and one public call."""
