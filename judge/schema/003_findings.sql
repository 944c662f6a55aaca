-- One row per pass of a suite over a run or an eval set; body is the report with every count and measure as JSON.
CREATE TABLE check_run (
    check_id     VARCHAR PRIMARY KEY,
    created_at   VARCHAR NOT NULL,
    run_id       VARCHAR,           -- NULL where an eval set was checked without a judge
    suite        VARCHAR NOT NULL,
    suite_digest VARCHAR NOT NULL,
    evalset      VARCHAR NOT NULL,
    pairs        BIGINT NOT NULL,
    findings     BIGINT NOT NULL,
    body         VARCHAR NOT NULL
);

-- The counts of one check of a pass. broken: the baseline passed and the candidate fails; fixed: the other way round.
CREATE TABLE check_count (
    check_id           VARCHAR NOT NULL,
    "check"            VARCHAR NOT NULL,
    severity           VARCHAR NOT NULL,
    layer              VARCHAR NOT NULL,
    axis               VARCHAR NOT NULL,
    n                  BIGINT NOT NULL,
    candidate_failed   BIGINT NOT NULL,
    baseline_failed    BIGINT NOT NULL,
    candidate_unjudged BIGINT NOT NULL,
    baseline_unjudged  BIGINT NOT NULL,
    broken             BIGINT NOT NULL,
    fixed              BIGINT NOT NULL
);

-- Every finding that failed (passed = false) or could not be made (passed IS NULL); what passed is only counted.
CREATE TABLE finding (
    check_id VARCHAR NOT NULL,
    run_id   VARCHAR,
    pair_id  VARCHAR NOT NULL,
    side     VARCHAR NOT NULL,
    "check"  VARCHAR NOT NULL,
    severity VARCHAR NOT NULL,
    passed   BOOLEAN,
    detail   VARCHAR NOT NULL,
    spans    VARCHAR NOT NULL       -- a JSON list of [start, end, note], characters of the answer's text
);
