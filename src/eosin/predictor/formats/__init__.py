"""Writing a model in other forms than its program, one file for each family of forms."""
