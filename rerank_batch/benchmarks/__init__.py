"""What is measured by `rerank-batch benchmark`, apart from the jobs themselves."""
