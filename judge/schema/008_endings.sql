-- How each answer ended, in its server's word (see judge/endings.py); NULL where nobody told, which is not "stop".
ALTER TABLE comparison ADD COLUMN candidate_finish VARCHAR;
ALTER TABLE comparison ADD COLUMN baseline_finish VARCHAR;
