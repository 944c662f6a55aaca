-- Whether a reply was taken over from an earlier identical judgement; NULL where it was brought in before this was kept.
ALTER TABLE reply ADD COLUMN reused BOOLEAN;
