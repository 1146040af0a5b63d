"""Data files: reading of records and demonstrations in all their forms, checks, tables."""
