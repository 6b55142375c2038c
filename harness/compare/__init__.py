"""Two studies, or a study and a stored baseline, held against each other: what changed, and is it real."""
