"""Recipes: from prompts to a compared student in one file, each step done once."""

from distill.recipes.engine import RecipeReport, run_recipe
from distill.recipes.shipped import write_quickstart
from distill.recipes.steps import Watch

__all__ = ["RecipeReport", "Watch", "run_recipe", "write_quickstart"]
