"""Displays a report: tables in the terminal, and one HTML file that works offline."""
