"""Reports of run directories: one HTML file, a slide, a comparison of runs."""
