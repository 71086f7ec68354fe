"""The published recipes, each naming its source."""
