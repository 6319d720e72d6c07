#include "config/model_config.h"

#include "config/foreign_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "base/temp_dir.h"

namespace penstock::config {
namespace {

using testing::ElementsAre;
using testing::EndsWith;

class ModelConfigTest : public testing::Test {
 protected:
  Result<ModelConfig> load(const std::string& text) {
    write_file_atomic(file_, text);
    return load_model_config(file_);
  }
  std::string refusal(const std::string& text) {
    const Result<ModelConfig> config = load(text);
    return config.ok() ? "accepted" : config.error().message();
  }

  TempDir folder_;
  std::filesystem::path file_ = folder_.path() / "model-config.yaml";
};

TEST_F(ModelConfigTest, ReadsEveryHonouredKey) {
  const ModelConfig config = load(R"(
minWorkers: 2
maxWorkers: 2
responseTimeout: 10
startupTimeout: 20
deviceType: gpu
deviceIds: [2, 3, 4, 5]
parallelType: PP
parallelLevel: 2
torchrun: {nnodes: 1, nproc-per-node: 2, OMP_NUMBER_THREADS: 4}
jobQueueSize: 7
clientTimeoutInMills: 1500
useJobTicket: true
maxRetryTimeoutInSec: 0
handler: {model_path: sub/model, max_sequence_tokens: 64, max_concurrent: 5, device: cuda, dtype: bf16, quantization: int4, kv_cache_mb: 300, kv_cache_dtype: bf16}
)")
                                 .value();
  EXPECT_EQ(config.min_workers, 2);
  EXPECT_EQ(config.max_workers, 2);
  EXPECT_EQ(config.response_timeout, seconds(10));
  EXPECT_EQ(config.startup_timeout, seconds(20));
  EXPECT_EQ(config.device_type, DeviceType::kGpu);
  EXPECT_THAT(config.device_ids, ElementsAre(2, 3, 4, 5));
  EXPECT_EQ(config.parallel_type, ParallelType::kPipeline);
  EXPECT_EQ(config.num_ranks(), 2);
  EXPECT_EQ(config.torchrun.omp_num_threads, 4);
  EXPECT_EQ(config.job_queue_size, 7);
  EXPECT_EQ(config.client_timeout, milliseconds(1500));
  EXPECT_TRUE(config.use_job_ticket);
  EXPECT_EQ(config.max_retry_timeout, seconds(0));
  EXPECT_EQ(config.handler.model_path, folder_.path() / "sub/model");
  EXPECT_EQ(config.handler.max_sequence_tokens, 64);
  EXPECT_EQ(config.handler.max_concurrent, 5);
  EXPECT_EQ(config.handler.kv_cache_mb, 300);
  EXPECT_EQ(config.handler.kv_cache_dtype, ComputeType::kBfloat16);
  EXPECT_EQ(config.handler.device, HandlerDevice::kCuda);
  EXPECT_EQ(config.handler.dtype, ComputeType::kBfloat16);
  EXPECT_EQ(config.handler.quantization, Quantization::kInt4);
  EXPECT_TRUE(config.notes.empty());
}

TEST_F(ModelConfigTest, IsAllDefaultsWithoutAFile) {
  const ModelConfig config = load_model_folder_config(folder_.path()).value();
  EXPECT_EQ(config.handler.model_path, folder_.path());
  EXPECT_EQ(config.num_ranks(), 1);
  EXPECT_EQ(config.response_timeout, std::nullopt);
  EXPECT_EQ(config.handler.max_concurrent, 8);
  EXPECT_EQ(load_model_folder_config(folder_.path() / "none").error().code(), Code::kNotFound);
}

TEST_F(ModelConfigTest, TheServersSettingsAreWeakerAndTheApisStronger) {
  ModelConfig config = load("minWorkers: 2\nresponseTimeout: 10\n").value();
  ModelSettings weaker;
  weaker.min_workers = 5;
  weaker.max_workers = 6;
  weaker.startup_timeout = seconds(7);
  config.fill_gaps(weaker);
  EXPECT_EQ(config.min_workers, 2);
  EXPECT_EQ(config.max_workers, 6);
  EXPECT_EQ(config.response_timeout, seconds(10));
  EXPECT_EQ(config.startup_timeout, seconds(7));
  ModelSettings stronger;
  stronger.min_workers = 1;
  stronger.response_timeout = seconds(3);
  config.override_with(stronger);
  EXPECT_EQ(config.min_workers, 1);
  EXPECT_EQ(config.max_workers, 6);
  EXPECT_EQ(config.response_timeout, seconds(3));
}

TEST_F(ModelConfigTest, AHandlerOnTheCpuHoldsNoGpu) {
  EXPECT_EQ(load("handler: {device: cpu}\n").value().device_type, DeviceType::kCpu);
  EXPECT_EQ(load("handler: {device: cuda}\n").value().device_type, DeviceType::kAuto);
}

TEST_F(ModelConfigTest, CountsRanksByEitherKey) {
  EXPECT_EQ(load("parallelType: pp\nparallelLevel: 3\n").value().num_ranks(), 3);
  EXPECT_EQ(load("parallelType: pp\ntorchrun: {nproc-per-node: 4}\n").value().num_ranks(), 4);
  EXPECT_EQ(load("parallelType: pp\n").value().num_ranks(), 1);
}

TEST_F(ModelConfigTest, RefusesTwoDifferentNumbersOfRanks) {
  EXPECT_THAT(refusal("parallelType: pp\nparallelLevel: 2\ntorchrun:\n  nproc-per-node: 4\n"),
              EndsWith("model-config.yaml:4: key 'torchrun.nproc-per-node': 4 contradicts parallelLevel 2 on line 2; give one of them"));
}

TEST_F(ModelConfigTest, ACustomWorkerIsOneProcessWithSeveralDevices) {
  for (const char* type : {"pp", "tp", "pptp", "TP"}) {
    const ModelConfig config = load(fmt::format("parallelType: {}\nparallelLevel: 2\n", type)).value();
    EXPECT_EQ(config.num_ranks(), 2) << type;
    EXPECT_EQ(config.devices_per_host(), 2) << type;
  }
  const ModelConfig custom = load("parallelType: custom\nparallelLevel: 4\n").value();
  EXPECT_EQ(custom.num_ranks(), 1);
  EXPECT_EQ(custom.devices_per_host(), 4);
  EXPECT_THAT(refusal("torchrun:\n  nproc-per-node: 2\n"),
              EndsWith("model-config.yaml:2: key 'torchrun.nproc-per-node': 2 processes for one worker need 'parallelType: pp', or tp or pptp"));
}

TEST_F(ModelConfigTest, LayersAreSharedByAllRanksOrThoseOfAMachineOrAsManyAsAreGiven) {
  EXPECT_EQ(load("parallelType: pp\nparallelLevel: 4\n").value().tensor_ranks(), 1);
  EXPECT_EQ(load("parallelType: tp\nparallelLevel: 4\n").value().tensor_ranks(), 4);
  EXPECT_EQ(load("parallelType: tp\nparallelLevel: 4\ntorchrun: {nnodes: 2}\n").value().tensor_ranks(), 8);
  EXPECT_EQ(load("parallelType: pptp\nparallelLevel: 4\ntorchrun: {nnodes: 2}\n").value().tensor_ranks(), 4) << "stages are machines";
  EXPECT_EQ(load("parallelType: pptp\nparallelLevel: 6\nhandler: {tensor_ranks: 2}\n").value().tensor_ranks(), 2);
  EXPECT_THAT(refusal("parallelType: pptp\nparallelLevel: 6\nhandler:\n  tensor_ranks: 4\n"),
              EndsWith("model-config.yaml:4: key 'handler.tensor_ranks': expected a divisor of a worker's 6 processes, found 4"));
  EXPECT_THAT(refusal("parallelType: tp\nparallelLevel: 6\nhandler:\n  tensor_ranks: 2\n"),
              EndsWith("is for 'parallelType: pptp'; with tp all processes of a worker share each layer, with others none do"));
}

TEST_F(ModelConfigTest, AWorkerMayBeOnSeveralMachines) {
  const ModelConfig config = load("parallelType: tp\nparallelLevel: 4\ntorchrun: {nnodes: 2, node-rank: 0, rdzv-endpoint: 'big-1:29500'}\n").value();
  EXPECT_EQ(config.ranks_per_host(), 4);
  EXPECT_EQ(config.num_ranks(), 8);
  EXPECT_EQ(config.torchrun.rdzv_host, "big-1");
  EXPECT_EQ(config.torchrun.rdzv_port, 29500);
  EXPECT_TRUE(config.notes.empty());
  EXPECT_EQ(load("torchrun: {rdzv-endpoint: '[fe80::1]:7'}\n").value().torchrun.rdzv_host, "fe80::1");
  EXPECT_EQ(load("torchrun: {rdzv-endpoint: big-1}\n").value().torchrun.rdzv_port, 0);
  for (const char* endpoint : {"big-1:", "big-1:x", "big-1:70000", ":1", "[fe80::1", "a b:1", "http://a"}) {
    EXPECT_THAT(refusal(fmt::format("torchrun: {{rdzv-endpoint: '{}'}}\n", endpoint)), testing::HasSubstr("expected HOST or HOST:PORT")) << endpoint;
  }
  EXPECT_THAT(refusal("parallelType: custom\nparallelLevel: 2\ntorchrun: {nnodes: 2}\n"), EndsWith("a worker is one process, on one machine"));
  EXPECT_THAT(refusal("torchrun: {nnodes: 2}\n"), testing::HasSubstr("key 'torchrun.nnodes': 2 processes for one worker need"));
  EXPECT_THAT(refusal("torchrun: {node-rank: 1}\n"), testing::HasSubstr("key 'torchrun.node-rank': expected 0, found 1"));
}

TEST_F(ModelConfigTest, RefusesKeysThatContradictEachOther) {
  EXPECT_THAT(refusal("minWorkers: 3\nmaxWorkers: 2\n"),
              EndsWith(":2: key 'maxWorkers': expected at least minWorkers, 3 (line 1), found 2"));
  EXPECT_THAT(refusal("deviceIds: [1, 1]\n"), EndsWith("the same device is listed twice"));
  EXPECT_THAT(refusal("deviceType: cpu\ndeviceIds: [1]\n"), EndsWith("GPUs are listed, but deviceType (line 1) is cpu"));
  EXPECT_THAT(refusal("deviceType: cpu\nhandler: {device: cuda}\n"), EndsWith("cuda, but deviceType (line 1) is cpu, which hides every GPU from the workers"));
  EXPECT_THAT(refusal("deviceIds: [1]\nhandler: {device: cpu}\n"), EndsWith("cpu, but deviceIds (line 1) lists GPUs"));
  EXPECT_THAT(refusal("deviceType: gpu\nhandler: {device: cpu}\n"), EndsWith("cpu, but deviceType (line 1) is gpu: the GPUs would be held for nothing"));
  EXPECT_THAT(refusal("parallelType: pp\nparallelLevel: 2\ndeviceIds: [1]\n"),
              EndsWith("expected at least 2 devices for one worker, found 1"));
}

TEST_F(ModelConfigTest, TheHandlerIsAMapOrAName) {
  EXPECT_EQ(load("handler: my_handler.so\n").value().handler.name, "my_handler.so");
  EXPECT_EQ(load("handler: {name: torchscript, max_concurrent: 2}\n").value().handler.name, "torchscript");
  EXPECT_EQ(load("handler: {max_concurrent: 2}\n").value().handler.name, "");
  EXPECT_THAT(refusal("handler: [a, b]\n"), EndsWith(":1: key 'handler': expected a map, or the handler's name, found a list"));
}

TEST_F(ModelConfigTest, KeysOfSomebodyElsesHandlerAreLeftToIt) {
  write_file_atomic(file_, "mine: {a: [1]}\nhandler: {anything: [{}], profile: 3}\nminWorkers: 2\npippy: {chunks: 1}\n");
  const ModelConfig config = load_foreign_model_config(folder_.path(), file_).value();
  EXPECT_EQ(config.min_workers, 2);
  EXPECT_EQ(config.handler.model_path, folder_.path());
  EXPECT_EQ(load_foreign_model_config(folder_.path(), "").value().min_workers, 0);
  write_file_atomic(file_, "minWorkers: many\n");
  EXPECT_THAT(load_foreign_model_config(folder_.path(), file_).error().message(), testing::HasSubstr("key 'minWorkers'"));
}

TEST_F(ModelConfigTest, ReadsTheKeysOfSequences) {
  const SequenceConfig none = load("minWorkers: 1\n").value().sequences;
  EXPECT_FALSE(none.batching);
  const SequenceConfig given = load("sequenceBatching: true\nsequenceMaxIdleMSec: 5000\nsequenceTimeoutMSec: 60000\nmaxSequenceJobQueueSize: 3\n"
                                    "maxNumSequence: 4\n").value().sequences;
  EXPECT_TRUE(given.batching);
  EXPECT_EQ(given.max_idle, seconds(5));
  EXPECT_EQ(given.max_life, seconds(60));
  EXPECT_EQ(given.max_waiting, 3);
  EXPECT_EQ(given.max_sequences, 4);
  EXPECT_THAT(refusal("maxNumSequence: 0\n"), testing::HasSubstr("expected an integer >= 1"));
}

TEST_F(ModelConfigTest, NamesTheNearestKey) {
  EXPECT_THAT(refusal("minWorker: 1\n"), EndsWith(":1: unknown key 'minWorker'; did you mean 'minWorkers'?"));
  EXPECT_THAT(refusal("handler:\n  modelpath: x\n"), EndsWith(":2: unknown key 'handler.modelpath'; did you mean 'handler.model_path'?"));
  EXPECT_THAT(refusal("torchrun: {nproc_per_node: 2}\n"), EndsWith("did you mean 'torchrun.nproc-per-node'?"));
  EXPECT_THAT(refusal("batchSize: many\n"), EndsWith(":1: key 'batchSize': expected an integer >= 1, found 'many'"));
}

TEST_F(ModelConfigTest, SaysWhenWorkersComeAndGo) {
  const ModelConfig config = load("maxWorkers: 4\nscaleUpAfterMSec: 500\nscaleDownAfterMSec: 7000\n").value();
  EXPECT_EQ(config.scale_up_after, milliseconds(500));
  EXPECT_EQ(config.scale_down_after, milliseconds(7000));
  EXPECT_TRUE(config.notes.empty());
}

TEST_F(ModelConfigTest, SaysOfEveryKeyThatDoesNothingWhy) {
  const ModelConfig config =
      load("continuousBatching: true\npippy:\n  chunks: 4\n  input_names: [a]\n").value();
  EXPECT_THAT(config.notes,
              ElementsAre(EndsWith(":1: continuousBatching: not applicable: batches are always made anew at every token"),
                          EndsWith(":2: pippy: not applicable: a setting of Python handlers")));
  EXPECT_THAT(refusal("useVenv: 1\n"), EndsWith("key 'useVenv': expected true or false, found '1'")) << "its type is checked all the same";
}

}  // namespace
}  // namespace penstock::config
