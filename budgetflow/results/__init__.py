"""Reading: files in, DataFrames, figures and the report out. Never trains anything."""
