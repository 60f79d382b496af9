"""Products in Milvus: the same search on other machines, see `ragqa.milvus.layout`."""
