"""Networks: construction, pretrained weights, edits, gates; and networks torchvision lacks."""
