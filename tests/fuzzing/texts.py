"""Settings, variables and labels that are valid."""

from ireu_cli.params import ARCFACE_LANDMARKS

SETTINGS = f"""\
seed = 7

[encoder]
source = "encoder"
tap = "pooled"
dtype = "float32"
groups = ["R50"]

[data]
targets = "faces"
retain = "others"
max_photos = 5
retain_holdout = 0.3
landmarks = {list(ARCFACE_LANDMARKS)}
labels = "labels.csv"
max_megapixels = 64.0

[locate]
method = "variance"
top_fraction = 0.2

[unlearn]
method = "ireu"
learning_rate = 5e-5
batch = 4
null_share = 0.3
direction = "toward"

[verify]
false_match_rate = 0.01
further_rates = [0.001, 0.1]
bootstrap = 500

[record]
case_id = "2026-1"
request_date = "2026-01-01"

[[judges.recognisers]]
name = "x"
model = "x.onnx"

[run]
device = "cpu"
batch_size = 4
"""
VARIABLES = {
    "IREU_SEED": "7",
    "IREU_ENCODER__SOURCE": "encoder",
    "IREU_ENCODER__TAP": "pooled",
    "IREU_ENCODER__GROUPS": "R50",
    "IREU_DATA__TARGETS": "faces",
    "IREU_DATA__LANDMARKS": ",".join(map(str, ARCFACE_LANDMARKS)),
    "IREU_LOCATE__TOP_FRACTION": "0.2",
    "IREU_VERIFY__FURTHER_RATES": "0.001,0.1",
    "IREU_JUDGES__RECOGNISERS": '[{"name": "x", "model": "x.onnx"}]',
    "IREU_RECORD__REQUEST_DATE": "2026-01-01",
    "IREU_RUN__BATCH_SIZE": "4",
    "IREU_SERVICE_HOST": "10.0.0.1",
}
LABELS = """\
person,hair,age
person-0,dark,18 to 40
person-1,fair,over 40
person-2,dark,over 40
person-3,fair,18 to 40
"""
CASES = """\
case_id,photos,action,request_date,photos_deleted_by
2026-1,people/person-0,remove,2026-01-02,2026-03-01
2026-2,people/person-1,,,
2026-3,,withdraw,,
"""
