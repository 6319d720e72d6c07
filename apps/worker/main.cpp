// penstock-worker: the compute process. `penstock train` and `penstock serve` start it; torchrun, mpirun, srun and Kubernetes may too.
#include <CLI/CLI.hpp>
#include <exception>

#include "apps/worker/torchscript_rank.h"
#include "apps/worker/worker_commands.h"
#include "base/log.h"
#include "tensor/blas_check.h"

int main(int argc, char** argv) {
  using namespace penstock;
  tensor::reexec_with_better_blas_kernels(argv);

  CLI::App app("One rank of a Penstock job. People start `penstock train` or `penstock serve`, which start this.");
  app.require_subcommand(1);
  int exit_code = 0;

  TrainRankOptions train;
  CLI::App* train_command = app.add_subcommand("train", "one rank of a training job, numbered by RANK and WORLD_SIZE (or OMPI_*, PMI_*, SLURM_*)");
  train_command->add_option("config", train.config_file, "the training configuration (YAML)")->required();
  train_command->add_option("--set", train.overrides, "override a key, e.g. batch.microbatches=8");
  train_command->add_flag("--resume", train.resume, "continue from the newest complete checkpoint");
  train_command->add_flag("--auto-resume", train.auto_resume, "the same where there is one, else begin");
  train_command->add_flag("--overwrite", train.overwrite, "start anew in a run folder that holds checkpoints");
  train_command->add_flag("--quiet", train.quiet, "no progress line");
  train_command->add_flag("--shared-log", train.shared_log, "what the ranks of this machine print comes together in one place: what all would say, one says");
  train_command->callback([&] { exit_code = run_train_rank(train); });

  OverlapRankOptions overlap;
  CLI::App* overlap_command = app.add_subcommand("overlap", "one rank of `penstock bench overlap`");
  overlap_command->add_option("config", overlap.config_file, "the training configuration (YAML)")->required();
  overlap_command->add_option("--set", overlap.overrides, "override a key, e.g. batch.microbatches=8");
  overlap_command->add_option("--link-gigabytes", overlap.link_gigabytes, "emulated bandwidth between replicas, per second")->check(CLI::NonNegativeNumber);
  overlap_command->add_option("--link-latency-us", overlap.link_latency_us, "emulated latency between replicas")->check(CLI::NonNegativeNumber);
  overlap_command->add_option("--steps", overlap.steps, "measured steps")->check(CLI::Range(1, 100000));
  overlap_command->callback([&] { exit_code = run_overlap_rank(overlap); });

  ServeRankOptions serve;
  CLI::App* serve_command = app.add_subcommand("serve", "one rank of a serving group: RANK of WORLD_SIZE");
  serve_command->add_option("--model", serve.model, "a Hugging Face directory or a GGUF file")->required();
  serve_command->add_option("--socket", serve.socket, "unix socket on which rank 0 answers the front door")->required();
  serve_command->add_option("--max-concurrent", serve.max_concurrent, "sequences that run at once")->check(CLI::Range(1, 1024));
  serve_command->add_option("--max-sequence-tokens", serve.max_sequence_tokens, "prompt and completion; 0 = as the model says");
  serve_command->add_option("--kv-cache-mb", serve.kv_cache_mb, "MiB for keys and values on this rank; 0 = by itself")->check(CLI::NonNegativeNumber);
  serve_command->add_option("--kv-cache-dtype", serve.kv_cache_dtype, "what keys and values are kept in: fp32, or bf16, in half the memory; auto = fp32")
      ->check(CLI::IsMember({"auto", "fp32", "bf16"}));
  serve_command->add_option("--dtype", serve.dtype, "auto, fp32 or bf16")->check(CLI::IsMember({"auto", "fp32", "bf16"}));
  serve_command->add_option("--device", serve.device, "auto, cpu or cuda; auto = a GPU where there is one")->check(CLI::IsMember({"auto", "cpu", "cuda"}));
  serve_command->add_option("--quantization", serve.quantization, "what weights are rounded to: auto (as the file has them), none, int8 or int4")
      ->check(CLI::IsMember({"auto", "none", "int8", "int4"}));
  serve_command->add_option("--tensor-ranks", serve.tensor_ranks, "ranks that share each layer; a divisor of WORLD_SIZE")->check(CLI::Range(1, 1024));
  serve_command->callback([&] { exit_code = run_serve_rank(serve); });

  BenchRankOptions bench;
  CLI::App* bench_command = app.add_subcommand("bench", "the measuring of `penstock bench prefill|decode`");
  bench_command->add_option("work", bench.work, "prefill or decode")->required()->check(CLI::IsMember({"prefill", "decode"}));
  bench_command->add_option("--model", bench.model, "a shape's name, or a config.json")->required();
  bench_command->add_option("--precision", bench.precision, "auto, fp32, bf16, int8 or int4")->check(CLI::IsMember({"auto", "fp32", "bf16", "int8", "int4"}));
  bench_command->add_option("--device", bench.device, "cpu or cuda")->check(CLI::IsMember({"cpu", "cuda"}));
  bench_command->add_option("--batch", bench.batch, "sequences at once")->check(CLI::Range(1, 1024));
  bench_command->add_option("--prompt", bench.prompt, "tokens")->check(CLI::Range(1, 1 << 20));
  bench_command->add_option("--repeats", bench.repeats, "measured prompts or steps")->check(CLI::Range(1, 100000));
  bench_command->callback([&] { exit_code = run_bench_rank(bench); });

  TorchscriptOptions torchscript;
  CLI::App* torchscript_command = app.add_subcommand("torchscript", "the worker of a torch.jit file");
  torchscript_command->add_option("--model", torchscript.model, "the file")->required();
  torchscript_command->add_option("--name", torchscript.name, "the model's name")->required();
  torchscript_command->add_option("--socket", torchscript.socket, "unix socket on which it answers the front door")->required();
  torchscript_command->add_option("--batch-size", torchscript.batch_size, "requests that run together")->check(CLI::Range(1, 65536));
  torchscript_command->add_option("--max-batch-delay-ms", torchscript.max_batch_delay_ms, "how long a batch waits to be full")
      ->check(CLI::NonNegativeNumber);
  torchscript_command->callback([&] { exit_code = run_torchscript_rank(torchscript); });

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    const int code = app.exit(e);
    return code == 0 ? 0 : 2;
  } catch (const std::exception& e) {
    spdlog::critical("{}", e.what());
    return 1;
  }
  return exit_code;
}
