#include "frontend/model_spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "base/temp_dir.h"

namespace penstock::frontend {
namespace {

using testing::HasSubstr;

class ModelSpecTest : public testing::Test {
 protected:
  void write_manifest(const std::string& text) {
    std::filesystem::create_directories(dir_.path() / "MAR-INF");
    write_file_atomic(dir_.path() / "MAR-INF/MANIFEST.json", text);
  }
  Result<ModelSpec> read() { return read_model_spec({name_, "models/stem.tar.gz", "source", dir_.path()}, entries_); }
  std::string refusal(const std::string& manifest) {
    write_manifest(manifest);
    auto spec = read();
    return spec ? "accepted" : spec.error().message();
  }
  std::string name_ = "tiny";
  TempDir dir_;
  std::vector<config::ModelEntry> entries_;
};

TEST_F(ModelSpecTest, AFolderWithoutAManifestIsVersionOne) {
  write_file_atomic(dir_.path() / "model-config.yaml", "minWorkers: 2\n");
  const ModelSpec spec = read().value();
  EXPECT_EQ(spec.version, "1.0");
  EXPECT_EQ(spec.config.min_workers, 2);
  EXPECT_FALSE(spec.is_default);
}

TEST_F(ModelSpecTest, AGgufFileIsAModelOfItsOwn) {
  write_file_atomic(dir_.path() / "x.gguf", "x");
  write_file_atomic(dir_.path() / "model-config.yaml", "minWorkers: 2\n");
  const std::filesystem::path file = dir_.path() / "x.gguf";
  const ModelSpec spec = read_model_spec({"", file.string(), file, file}, {}).value();
  EXPECT_EQ(spec.name, "x");
  EXPECT_EQ(spec.config.handler.model_path, file);
  EXPECT_EQ(spec.handler, "llm");
  EXPECT_EQ(spec.config.min_workers, 0) << "the folder around it is not its own";
}

TEST_F(ModelSpecTest, AManifestNamesVersionAndConfiguration) {
  write_file_atomic(dir_.path() / "model-config.yaml", "minWorkers: 2\n");
  write_file_atomic(dir_.path() / "other.yaml", "minWorkers: 3\n");
  write_manifest(R"({"runtime": "python", "model": {"modelVersion": "2.1", "configFile": "other.yaml", "handler": "service.py:handle"}})");
  const ModelSpec spec = read().value();
  EXPECT_EQ(spec.handler, "service.py:handle") << "whether a worker can run it is asked when workers are started";
  EXPECT_EQ(spec.version, "2.1");
  EXPECT_EQ(spec.config.min_workers, 3);
}

TEST_F(ModelSpecTest, ANameIsTheCallersOrTheManifestsOrTheFiles) {
  write_manifest(R"({"model": {"modelName": "other"}})");
  EXPECT_EQ(read().value().name, "tiny");
  name_ = "";
  EXPECT_EQ(read().value().name, "other");
  write_manifest(R"({"model": {}})");
  EXPECT_EQ(read().value().name, "stem");
  EXPECT_THAT(refusal(R"({"model": {"modelName": "a/b"}})"), HasSubstr("model name 'a/b'"));
}

TEST_F(ModelSpecTest, TheServersModelsKeyFillsGapsOfItsVersionOnly) {
  write_file_atomic(dir_.path() / "model-config.yaml", "minWorkers: 2\n");
  entries_ = {{"tiny", "1.0", true, {}}, {"tiny", "2.0", false, {}}};
  entries_[0].settings.min_workers = 7;
  entries_[0].settings.batch_size = 4;
  entries_[1].settings.batch_size = 9;
  const ModelSpec spec = read().value();
  EXPECT_EQ(spec.config.min_workers, 2) << "the model's own file is stronger";
  EXPECT_EQ(spec.config.batch_size, 4);
  EXPECT_TRUE(spec.is_default);
}

TEST_F(ModelSpecTest, TheHandlerComesFromTheClientTheConfigurationTheManifestOrTheFolder) {
  EXPECT_EQ(read().value().handler, "llm");
  write_file_atomic(dir_.path() / "model.pt", "x");
  EXPECT_EQ(read().value().handler_kind, HandlerKind::kTorchscript);
  write_file_atomic(dir_.path() / "config.json", "{}");
  EXPECT_EQ(read().value().handler, "llm") << "a Hugging Face directory";
  write_manifest(R"({"model": {"handler": "service.py", "serializedFile": "weights.pt"}})");
  EXPECT_EQ(read().value().handler_kind, HandlerKind::kPython);
  EXPECT_EQ(read().value().serialized_file, "weights.pt");
  write_file_atomic(dir_.path() / "model-config.yaml", "handler: my.so\n");
  EXPECT_EQ(read().value().handler_kind, HandlerKind::kLibrary);
  EXPECT_EQ(read_model_spec({"tiny", "tiny", "source", dir_.path()}, entries_, "torchscript").value().handler, "torchscript");
}

TEST_F(ModelSpecTest, TheManifestMayNameAnEnvelope) {
  write_manifest(R"({"model": {"handler": "service.py", "envelope": "json"}})");
  EXPECT_EQ(read().value().envelope, "json");
  write_manifest(R"({"model": {"handler": "service.py", "envelope": null}})");
  EXPECT_EQ(read().value().envelope, "");
  EXPECT_THAT(refusal(R"({"model": {"handler": "service.py", "envelope": 1}})"), HasSubstr("model.envelope: expected text, found number"));
}

TEST_F(ModelSpecTest, TakesTheSamplingDefaultsOfATextModelUnlessItsConfigurationSaysNone) {
  write_file_atomic(dir_.path() / "config.json", "{}");
  write_file_atomic(dir_.path() / "generation_config.json", R"({"temperature": 0.5})");
  EXPECT_EQ(read().value().sampling_defaults.temperature, 0.5);
  write_file_atomic(dir_.path() / "generation_config.json", R"({"temperature": 7})");
  EXPECT_THAT(read().error().message(), HasSubstr("generation_config.json: temperature: expected a number from 0 to 2, found 7; mend the file, or say handler.generation_config: none"));
  write_file_atomic(dir_.path() / "model-config.yaml", "handler:\n  generation_config: none\n");
  EXPECT_EQ(read().value().sampling_defaults.temperature, std::nullopt);
  write_file_atomic(dir_.path() / "model-config.yaml", "handler: my.so\n");
  EXPECT_EQ(read().value().sampling_defaults.temperature, std::nullopt);
}

TEST_F(ModelSpecTest, HostileManifestsAreRefusedByName) {
  EXPECT_THAT(refusal("{"), HasSubstr("MANIFEST.json: expected JSON"));
  EXPECT_THAT(refusal("[]"), HasSubstr("expected a JSON object"));
  EXPECT_THAT(refusal("{}"), HasSubstr("expected an object 'model'"));
  EXPECT_THAT(refusal(R"({"model": {"modelVersion": 2}})"), HasSubstr("model.modelVersion: expected text, found number"));
  EXPECT_THAT(refusal(R"({"model": {"modelVersion": "../2"}})"), HasSubstr("model version '../2'"));
  EXPECT_THAT(refusal(R"({"model": {"configFile": "../../etc/passwd"}})"), HasSubstr("inside the model's folder"));
  EXPECT_THAT(refusal(R"({"model": {"configFile": "/etc/passwd"}})"), HasSubstr("inside the model's folder"));
  EXPECT_THAT(refusal(R"({"model": {"handler": 1}})"), HasSubstr("model.handler: expected text, found number"));
  EXPECT_THAT(refusal(std::string(100000, '[')), HasSubstr("MANIFEST.json: nested deeper than 16"));
  EXPECT_THAT(refusal(R"({"model": )" + std::string(20000, '[') + std::string(20000, ']') + "}"), HasSubstr("MANIFEST.json: nested deeper than 16"));
  EXPECT_THAT(refusal("{\"model\": {\"handler\": \"\xff\"}}"), HasSubstr("expected UTF-8"));
}

}  // namespace
}  // namespace penstock::frontend
