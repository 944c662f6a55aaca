-- What is known of a run's calls beside its comparisons (see judge/ledger.py); NULL where a price or a time is unknown.
ALTER TABLE run ADD COLUMN calls INTEGER DEFAULT 0;
ALTER TABLE run ADD COLUMN possibly_paid INTEGER DEFAULT 0;
ALTER TABLE run ADD COLUMN possibly_paid_cost DOUBLE DEFAULT 0;
ALTER TABLE run ADD COLUMN given_up INTEGER DEFAULT 0;
ALTER TABLE run ADD COLUMN rate DOUBLE;
