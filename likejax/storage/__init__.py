"""Files of a run or a density: written whole or not at all, and verified when read."""
