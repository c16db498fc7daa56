"""Analyses of trained networks: attention, class activation, occlusion, texts; results compared with each other."""
