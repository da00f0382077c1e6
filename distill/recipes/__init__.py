"""Recipes: from prompts to a compared student in one file, each step done once."""

from distill.recipes.engine import RecipeReport, run_recipe

__all__ = ["RecipeReport", "run_recipe"]
