"""What a run needs and costs, before it is paid for: arithmetic on a recipe, a model's config and device figures."""
