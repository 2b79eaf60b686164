"""The formats, one file each; `edgepose_trainer.export.registry` lists them."""
