"""What a person reads: figures and the HTML report."""
