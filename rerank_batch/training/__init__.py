"""From labels to a cross-encoder of your own. One process trains; others may share each step."""
