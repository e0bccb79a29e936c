"""What a run was, told to a person: one HTML file, a slide, a comparison of runs. Reads run directories alone."""
