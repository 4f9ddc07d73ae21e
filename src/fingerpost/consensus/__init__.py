"""Human reviews, and their consensus with the teachers' labels."""
