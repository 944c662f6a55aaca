-- What a dashboard needs of a run, added up once when the run is brought in: sums by cell, so that a page over a million
-- comparisons reads a few hundred rows. Derived from `comparison`; `judge recover` and `Store.roll_up` write it anew.
--
-- A cell is a run, a column and its value, and for two-way tables a second column and value ('' where there is none);
-- the column '' is the whole run. `x` is the measure: `total` and `squares` are sums over the `n` rows that have it,
-- and the last four are sums over prompts, from which the clustered intervals of calibration/sums.py follow exactly:
-- prompts with a row, sum of (total of a prompt)^2, of total x rows, of rows^2.
CREATE TABLE rollup (
    run_id   VARCHAR NOT NULL,
    facet    VARCHAR NOT NULL,
    value    VARCHAR NOT NULL,
    across   VARCHAR NOT NULL,
    other    VARCHAR NOT NULL,
    measure  VARCHAR NOT NULL,
    n        BIGINT NOT NULL,
    total    DOUBLE NOT NULL,
    squares  DOUBLE NOT NULL,
    clusters BIGINT NOT NULL,
    tt       DOUBLE NOT NULL,
    tn       DOUBLE NOT NULL,
    nn       DOUBLE NOT NULL
);

-- Histogram bins of a run: `axis` is confidence or length (log2 of candidate over baseline characters), `bin` counts
-- from 0 (see judge/store/rollups.py for the edges); `labelled` and `agreed` count decisive labels that the eval set brought.
CREATE TABLE histogram (
    run_id   VARCHAR NOT NULL,
    axis     VARCHAR NOT NULL,
    bin      INTEGER NOT NULL,
    n        BIGINT NOT NULL,
    win      BIGINT NOT NULL,
    tie      BIGINT NOT NULL,
    loss     BIGINT NOT NULL,
    flipped  BIGINT NOT NULL,
    labelled BIGINT NOT NULL,
    agreed   DOUBLE NOT NULL,
    mean     DOUBLE NOT NULL
);

-- By which version of the code a run was added up; a run without a row is added up at the next chance.
CREATE TABLE rolled (
    run_id  VARCHAR PRIMARY KEY,
    version INTEGER NOT NULL
);
