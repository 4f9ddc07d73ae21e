"""Reviews, and what they say together with the teacher's answers."""
