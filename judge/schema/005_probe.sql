-- Calls that found out the judge's mode before a run began, and what they took in US dollars (NULL: the price is unknown).
ALTER TABLE run ADD COLUMN probes INTEGER DEFAULT 0;
ALTER TABLE run ADD COLUMN probe_cost DOUBLE DEFAULT 0;
-- Which keys were possibly paid for without an answer, and how often: a JSON object.
ALTER TABLE run ADD COLUMN lost VARCHAR DEFAULT '{}';
