"""The first look: some models on some rows through the cheap lenses, without a study: one page, one table."""
