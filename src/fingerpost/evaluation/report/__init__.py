"""A report as people see it: tables in the terminal, and one page that works offline."""
