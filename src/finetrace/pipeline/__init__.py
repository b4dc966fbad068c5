"""Running a study: what a stage shares with the others, and the driver that runs stages side by side."""
