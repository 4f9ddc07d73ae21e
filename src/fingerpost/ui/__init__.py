"""The pages for a browser: review, compare, report, runs, start. Server-rendered; every action works without scripts."""
