"""The jobs, one file each: a file reads as the job it is."""
