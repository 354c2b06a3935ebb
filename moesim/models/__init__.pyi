"""What type checkers see of the names that are imported when first used."""

from moesim.models.tree import fff as fff
