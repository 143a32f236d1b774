"""Sources of datasets: built-in data, toys, published tables, folders, files and TFDS."""
