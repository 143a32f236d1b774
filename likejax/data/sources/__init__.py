"""Where datasets come from: built-in data, toys, published tables, folders and TFDS."""
