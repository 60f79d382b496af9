"""A product index on disk: manifest, generations, checksums; how it is built and opened."""
