"""Networks that torchvision does not have, for recipes to name as ``module:factory``."""
