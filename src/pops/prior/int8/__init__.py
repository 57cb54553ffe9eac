"""int8 layers for x86 CPUs with AVX-512 VNNI: the only place that knows the instruction."""
