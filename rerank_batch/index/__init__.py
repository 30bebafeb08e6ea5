"""The index as files: manifests, generations, changes."""
