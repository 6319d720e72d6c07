#include "frontend/worker_command.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "base/temp_dir.h"

namespace penstock::frontend {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

class WorkerCommandTest : public testing::Test {
 protected:
  WorkerCommandTest() {
    spec.name = "tiny";
    spec.config.handler.model_path = dir.path();
    programs = {"/bin/sh", "/bin/cat"};
  }
  void use(const std::string& handler) {
    spec.handler = handler;
    spec.handler_kind = handler_kind(handler);
  }
  std::string refusal() {
    const auto command = worker_command(spec, programs);
    return command ? "accepted" : command.error().message();
  }
  TempDir dir;
  ModelSpec spec;
  WorkerPrograms programs;
};

TEST_F(WorkerCommandTest, TextGenerationTakesAHuggingFaceDirectory) {
  EXPECT_THAT(refusal(), HasSubstr("model 'tiny': no config.json in " + dir.path().string()));
  write_file_atomic(dir.path() / "config.json", "{}");
  spec.config.handler.max_concurrent = 3;
  spec.config.handler.max_sequence_tokens = 64;
  spec.config.handler.kv_cache_mb = 300;
  spec.config.handler.kv_cache_dtype = config::ComputeType::kBfloat16;
  EXPECT_THAT(worker_command(spec, programs).value().arguments, ElementsAre("/bin/sh", "serve", "--model", dir.path().string(), "--max-concurrent", "3",
                                                                  "--dtype", "auto", "--max-sequence-tokens", "64", "--kv-cache-mb", "300", "--kv-cache-dtype", "bf16"));
}

TEST_F(WorkerCommandTest, TextGenerationTakesAGgufFileAndAFolderWithOne) {
  write_file_atomic(dir.path() / "x.gguf", "x");
  EXPECT_EQ(worker_command(spec, programs).value().arguments.at(3), dir.path().string());
  spec.config.handler.model_path = dir.path() / "x.gguf";
  EXPECT_EQ(worker_command(spec, programs).value().arguments.at(3), (dir.path() / "x.gguf").string());
}

TEST_F(WorkerCommandTest, TextGenerationIsToldItsDeviceOnlyWhereOneIsChosen) {
  write_file_atomic(dir.path() / "config.json", "{}");
  EXPECT_THAT(worker_command(spec, programs).value().arguments, Not(Contains("--device")));
  for (const auto& [device, name] : {std::pair(config::HandlerDevice::kCpu, "cpu"), std::pair(config::HandlerDevice::kCuda, "cuda")}) {
    spec.config.handler.device = device;
    const auto arguments = worker_command(spec, programs).value().arguments;
    EXPECT_THAT(std::vector(arguments.end() - 2, arguments.end()), ElementsAre("--device", name));
  }
}

TEST_F(WorkerCommandTest, TextGenerationNamesTheDtypeAsTheWorkerTakesIt) {
  write_file_atomic(dir.path() / "config.json", "{}");
  for (const auto& [dtype, name] : {std::pair(config::ComputeType::kFloat32, "fp32"), std::pair(config::ComputeType::kBfloat16, "bf16")}) {
    spec.config.handler.dtype = dtype;
    const auto arguments = worker_command(spec, programs).value().arguments;
    EXPECT_THAT(std::vector(arguments.end() - 2, arguments.end()), ElementsAre("--dtype", name));
  }
}

TEST_F(WorkerCommandTest, TextGenerationPassesTheQuantizationOn) {
  write_file_atomic(dir.path() / "config.json", "{}");
  EXPECT_THAT(worker_command(spec, programs).value().arguments, testing::Not(testing::Contains("--quantization")));
  for (const auto& [quantization, name] : {std::pair(config::Quantization::kAuto, "auto"), std::pair(config::Quantization::kInt8, "int8"), std::pair(config::Quantization::kInt4, "int4")}) {
    spec.config.handler.quantization = quantization;
    const auto arguments = worker_command(spec, programs).value().arguments;
    EXPECT_THAT(std::vector(arguments.end() - 2, arguments.end()), ElementsAre("--quantization", name));
  }
}

TEST_F(WorkerCommandTest, TorchscriptTakesTheSerializedFileOrModelPt) {
  use("torchscript");
  EXPECT_THAT(refusal(), HasSubstr("the torch.jit file: there is no file 'model.pt' in"));
  write_file_atomic(dir.path() / "model.pt", "x");
  write_file_atomic(dir.path() / "other.pt", "x");
  spec.config.batch_size = 8;
  spec.config.max_batch_delay_ms = 20;
  const std::string folder = std::filesystem::canonical(dir.path()).string();
  EXPECT_THAT(worker_command(spec, programs).value().arguments, ElementsAre("/bin/sh", "torchscript", "--model", folder + "/model.pt", "--name", "tiny", "--batch-size", "8",
                                                                  "--max-batch-delay-ms", "20"));
  spec.serialized_file = "other.pt";
  EXPECT_EQ(worker_command(spec, programs).value().arguments.at(3), folder + "/other.pt");
}

TEST_F(WorkerCommandTest, ALibraryLiesInTheModelsFolder) {
  use("my.so");
  EXPECT_THAT(refusal(), HasSubstr("model 'tiny': the handler: there is no file 'my.so'"));
  write_file_atomic(dir.path() / "my.so", "x");
  spec.config.handler.max_concurrent = 3;
  EXPECT_THAT(worker_command(spec, programs).value().arguments,
              ElementsAre("/bin/cat", "--library", (std::filesystem::canonical(dir.path()) / "my.so").string(), "--model", dir.path().string(),
                          "--name", "tiny", "--max-concurrent", "3"));
  programs.library = dir.path() / "penstock-handler";
  EXPECT_THAT(refusal(), HasSubstr("build the target penstock-handler"));
}

TEST_F(WorkerCommandTest, PythonRunsTorchServesWorkerWithTheFolderOnItsPath) {
  use("service.py");
  const WorkerCommand command = worker_command(spec, programs).value();
  EXPECT_EQ(command.arguments[0], "python3");
  EXPECT_EQ(command.arguments[3], dir.path().string()) << "where it runs";
  EXPECT_EQ(command.socket_option, "--sock-name");
  EXPECT_THAT(command.environment[0], testing::StartsWith("PYTHONPATH=" + dir.path().string()));
  EXPECT_EQ(command.variables, cluster::RankVariables::kNone) << "a program that looks for RANK must not take itself for one of several";
}

TEST_F(WorkerCommandTest, PythonRanksGetWhatTorchrunWouldTellThem) {
  use("service.py");
  spec.config.parallel_level = 2;
  for (const auto type : {config::ParallelType::kPipeline, config::ParallelType::kTensor, config::ParallelType::kBoth}) {
    spec.config.parallel_type = type;
    EXPECT_EQ(worker_command(spec, programs).value().variables, cluster::RankVariables::kTorchrun);
  }
  spec.config.parallel_type = config::ParallelType::kCustom;
  EXPECT_EQ(worker_command(spec, programs).value().variables, cluster::RankVariables::kNone);
  spec.config.parallel_type = config::ParallelType::kTensor;
  spec.config.torchrun.nnodes = 2;
  EXPECT_THAT(refusal(), HasSubstr("torchrun.nnodes 2: the processes of a Python handler are on one machine"));
}

TEST_F(WorkerCommandTest, TextGenerationIsToldHowItsLayersAreDivided) {
  write_file_atomic(dir.path() / "config.json", "{}");
  spec.config.parallel_level = 2;
  spec.config.parallel_type = config::ParallelType::kPipeline;
  EXPECT_THAT(worker_command(spec, programs).value().arguments, testing::Not(testing::Contains("--tensor-ranks")));
  spec.config.parallel_type = config::ParallelType::kTensor;
  EXPECT_THAT(worker_command(spec, programs).value().arguments, testing::IsSupersetOf({"--tensor-ranks", "2"}));
  spec.config.parallel_type = config::ParallelType::kBoth;
  spec.config.parallel_level = 12;
  spec.config.handler.tensor_ranks = 4;
  EXPECT_THAT(worker_command(spec, programs).value().arguments, testing::IsSupersetOf({"--tensor-ranks", "4"}));
  spec.config.parallel_type = config::ParallelType::kCustom;
  EXPECT_THAT(refusal(), HasSubstr("parallelType custom is for handlers that use several GPUs from one process; 'llm' takes pp, tp and pptp"));
}

TEST_F(WorkerCommandTest, TorchscriptRunsInOneProcess) {
  use("torchscript");
  write_file_atomic(dir.path() / "model.pt", "x");
  spec.config.parallel_level = 2;
  spec.config.parallel_type = config::ParallelType::kPipeline;
  EXPECT_THAT(refusal(), HasSubstr("parallelLevel 2: handler 'torchscript' runs in one process"));
  spec.config.parallel_type = config::ParallelType::kCustom;
  EXPECT_EQ(refusal(), "accepted");
}

TEST_F(WorkerCommandTest, FilesOutsideTheFolderAreRefusedAlsoByWayOfALink) {
  use("torchscript");
  spec.serialized_file = "../../../../../../etc/passwd";
  EXPECT_THAT(refusal(), HasSubstr("lies outside"));
  std::filesystem::create_symlink("/etc/passwd", dir.path() / "link.pt");
  spec.serialized_file = "link.pt";
  EXPECT_THAT(refusal(), HasSubstr("'link.pt' lies outside"));
  spec.serialized_file = "/etc/passwd";
  EXPECT_THAT(refusal(), HasSubstr("lies outside"));
}

TEST_F(WorkerCommandTest, AMissingProgramIsNamed) {
  write_file_atomic(dir.path() / "config.json", "{}");
  programs.compute = dir.path() / "penstock-worker";
  EXPECT_THAT(refusal(), HasSubstr("there is no worker program " + programs.compute.string()));
}

TEST(HandlerKind, IsToldByTheName) {
  EXPECT_EQ(handler_kind("llm"), HandlerKind::kText);
  EXPECT_EQ(handler_kind("torchscript"), HandlerKind::kTorchscript);
  EXPECT_EQ(handler_kind("my_handler.so"), HandlerKind::kLibrary);
  for (const char* name : {"service.py", "service:handle", "image_classifier", "x.so.py"}) EXPECT_EQ(handler_kind(name), HandlerKind::kPython);
}

}  // namespace
}  // namespace penstock::frontend
