-- The version of the screen whose flags the run's comparisons carry; '' where it was brought in before this was kept.
ALTER TABLE run ADD COLUMN screen VARCHAR DEFAULT '';
