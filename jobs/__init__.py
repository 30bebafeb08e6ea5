"""The commands, one file each: options in, one call, one table out."""
