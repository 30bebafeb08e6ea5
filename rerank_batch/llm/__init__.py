"""Asking a language model many things by prompt, each of them once, with a journal of replies."""
