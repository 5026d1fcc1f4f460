"""What is served: the folder of archives, its `models.yaml`, and the catalog that requests are held against."""
