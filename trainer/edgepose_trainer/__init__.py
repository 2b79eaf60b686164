"""The desk half of edgepose: trains, validates and exports pose models. The only place that imports torch."""
