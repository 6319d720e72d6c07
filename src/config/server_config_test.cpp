#include "config/server_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "base/file.h"
#include "base/temp_dir.h"

namespace penstock::config {
namespace {

using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;

class ServerConfigTest : public testing::Test {
 protected:
  Result<ServerConfig> load(const std::string& text) {
    write_file_atomic(file_, text);
    return load_server_config(file_, fixed_environment({{"STORE", "/models"}, {"PORT", "70"}}));
  }
  std::string refusal(const std::string& text) {
    const Result<ServerConfig> config = load(text);
    return config.ok() ? "accepted" : config.error().message();
  }

  TempDir folder_;
  std::filesystem::path file_ = folder_.path() / "config.properties";
};

TEST_F(ServerConfigTest, HasTorchServesDefaults) {
  const ServerConfig config = load("").value();
  EXPECT_EQ(config.grpc_inference_address, "127.0.0.1");
  EXPECT_EQ(config.grpc_inference_port, 7070);
  EXPECT_EQ(config.default_response_timeout, seconds(120));
  EXPECT_EQ(config.default_startup_timeout, seconds(120));
  EXPECT_EQ(config.job_queue_size, 100);
  EXPECT_EQ(config.max_request_size, 6553500);
  EXPECT_EQ(config.number_of_gpu, std::nullopt);
  EXPECT_FALSE(config.load_all_models);
  EXPECT_TRUE(config.notes.empty());
}

TEST_F(ServerConfigTest, ReadsWhatItHonours) {
  const ServerConfig config =
      load(
          "grpc_inference_address=0.0.0.0\ngrpc_inference_port=9000\nmodel_store=store\nload_models = a, b ,c\ndefault_response_timeout=7\n"
          "default_startup_timeout=8\njob_queue_size=9\nnumber_of_gpu=0\nmax_request_size=10\nmax_response_size=11\ndefault_workers_per_"
          "model=2\n")
          .value();
  EXPECT_EQ(config.grpc_inference_address, "0.0.0.0");
  EXPECT_EQ(config.grpc_inference_port, 9000);
  EXPECT_EQ(config.model_store, (folder_.path() / "store").string()) << "relative to the file, not to the working folder";
  EXPECT_THAT(config.load_models, ElementsAre("a", "b", "c"));
  EXPECT_EQ(config.default_response_timeout, seconds(7));
  EXPECT_EQ(config.default_startup_timeout, seconds(8));
  EXPECT_EQ(config.job_queue_size, 9);
  EXPECT_EQ(config.number_of_gpu, 0);
  EXPECT_EQ(config.max_request_size, 10);
  EXPECT_EQ(config.max_response_size, 11);
  EXPECT_EQ(config.default_workers_per_model, 2);
}

TEST_F(ServerConfigTest, HiddenVariablesAreARegularExpression) {
  EXPECT_EQ(load("blacklist_env_vars=AWS_.*|SECRET\n").value().blacklist_env_vars, "AWS_.*|SECRET");
  EXPECT_THAT(refusal("blacklist_env_vars=" + std::string(100000, 'x') + "\n"), HasSubstr("expected a regular expression of at most 1000 bytes, found 100000"));
  EXPECT_THAT(refusal("blacklist_env_vars=(\n"), HasSubstr("key 'blacklist_env_vars': '(' is not a regular expression"));
  ::setenv("PENSTOCK_TEST_ONE", "1", 1);
  ::setenv("PENSTOCK_TEST_ONE_MORE", "1", 1);
  EXPECT_THAT(variables_matching("PENSTOCK_TEST_ON[E]"), ElementsAre("PENSTOCK_TEST_ONE")) << "names match in full";
  EXPECT_THAT(variables_matching(""), testing::IsEmpty());
}

TEST_F(ServerConfigTest, TakesHttpAddressesApart) {
  const ServerConfig config = load("inference_address=http://0.0.0.0:80\nmanagement_address=http://[::1]:0\n").value();
  EXPECT_EQ(config.inference_address.host, "0.0.0.0");
  EXPECT_EQ(config.inference_address.port, 80);
  EXPECT_EQ(config.management_address.host, "::1");
  EXPECT_EQ(config.management_address.port, 0);
  EXPECT_EQ(load("").value().management_address.port, 8081);
}

TEST_F(ServerConfigTest, TokensAreTheProgramsChoiceUnlessTheFileSaysOtherwise) {
  EXPECT_EQ(load("").value().token_authorization, std::nullopt);
  EXPECT_EQ(load("disable_token_authorization=false\n").value().token_authorization, true);
  EXPECT_EQ(load("disable_token_authorization=true\n").value().token_authorization, false);
  const ServerConfig config = load("token_expiration_min=0.25\ntoken_failure_limit=7\n").value();
  EXPECT_EQ(config.token_expiration_min, 0.25);
  EXPECT_EQ(config.token_failure_limit, 7);
  EXPECT_TRUE(config.notes.empty());
}

TEST_F(ServerConfigTest, ReadsTlsAndCors) {
  const ServerConfig config = load("inference_address=https://localhost:8443\ncertificate_file=c.pem\nprivate_key_file=k.pem\nclient_ca_file=ca.pem\n"
                                   "cors_allowed_origin=https://a.example\ncors_allowed_methods=GET\ncors_allowed_headers=X\nhttp_header_timeout=2\n")
                                  .value();
  EXPECT_TRUE(config.inference_address.tls);
  EXPECT_TRUE(config.uses_tls());
  EXPECT_EQ(config.certificate_file, "c.pem") << "relative to the working folder, as in TorchServe";
  EXPECT_EQ(config.client_ca_file, "ca.pem");
  EXPECT_EQ(config.cors_allowed_origin, "https://a.example");
  EXPECT_EQ(config.http_header_timeout, seconds(2));
  EXPECT_TRUE(config.notes.empty());
  EXPECT_FALSE(load("").value().uses_tls());
}

TEST_F(ServerConfigTest, MetricsAreShownUnlessToldOtherwise) {
  const ServerConfig standard = load("").value();
  EXPECT_TRUE(standard.enable_metrics_api);
  EXPECT_EQ(standard.metrics_address.port, 8082);
  EXPECT_EQ(standard.metrics_mode, MetricsMode::kLog);
  const ServerConfig config = load("metrics_address=http://0.0.0.0:99\nenable_metrics_api=false\nmetrics_mode=legacy\nmetric_time_interval=5\n"
                                   "disable_system_metrics=true\n").value();
  EXPECT_EQ(config.metrics_address.port, 99);
  EXPECT_FALSE(config.enable_metrics_api);
  EXPECT_EQ(config.metrics_mode, MetricsMode::kLegacy);
  EXPECT_EQ(config.metric_time_interval, seconds(5));
  EXPECT_TRUE(config.disable_system_metrics);
  EXPECT_THAT(refusal("metrics_mode=loud\n"), HasSubstr("key 'metrics_mode': expected"));
  EXPECT_THAT(refusal("metric_time_interval=0\n"), HasSubstr("expected a whole number of seconds >= 1"));
}

TEST_F(ServerConfigTest, LogsAndTracesHaveKeysOfOurs) {
  EXPECT_EQ(load("").value().access_log, AccessLog::kAuto);
  const ServerConfig config = load("access_log=json\notlp_endpoint=http://127.0.0.1:4318\n").value();
  EXPECT_EQ(config.access_log, AccessLog::kJson);
  EXPECT_EQ(config.otlp_endpoint, "http://127.0.0.1:4318");
  EXPECT_THAT(refusal("access_log=xml\n"), HasSubstr("key 'access_log': expected"));
}

TEST_F(ServerConfigTest, LoadsAllModelsWhenToldSo) {
  EXPECT_TRUE(load("load_models=all\n").value().load_all_models);
  EXPECT_TRUE(load("load_models=\n").value().load_models.empty());
}

TEST_F(ServerConfigTest, SaysOfEveryKeyThatDoesNothingWhy) {
  const ServerConfig config =
      load("# c\nworkflow_store=w\nmetrics_config=m.yaml\nvmargs=-Xmx1g\nnumber_of_netty_threads=4\n").value();
  EXPECT_THAT(config.notes, ElementsAre(EndsWith("config.properties:2: workflow_store: not supported yet: workflows"),
                                        HasSubstr("config.properties:3: metrics_config: not applicable"),
                                        EndsWith("config.properties:4: vmargs: not applicable: a setting of TorchServe's Java program"),
                                        HasSubstr("config.properties:5: number_of_netty_threads: not applicable: a setting of Netty")));
  EXPECT_THAT(refusal("number_of_netty_threads=four\n"), EndsWith("expected an integer >= 0, found 'four'")) << "its type is checked all the same";
  EXPECT_THAT(refusal("debug=yes\n"), EndsWith("key 'debug': expected true or false, found 'yes'"));
}

TEST_F(ServerConfigTest, EnvironmentVariablesOverrideTheFileOnlyWhenItSaysSo) {
  const Environment environment = fixed_environment({{"TS_GRPC_INFERENCE_PORT", "9"}, {"TS_JOB_QUEUE_SIZE", "8"}, {"TS_MODEL_STORE", "m"}});
  write_file_atomic(file_, "job_queue_size=7\n");
  EXPECT_EQ(load_server_config(file_, environment).value().job_queue_size, 7);
  write_file_atomic(file_, "job_queue_size=7\nmodel_store=store\nenable_envvars_config=true\n");
  const ServerConfig config = load_server_config(file_, environment).value();
  EXPECT_EQ(config.job_queue_size, 8);
  EXPECT_EQ(config.grpc_inference_port, 9);
  EXPECT_EQ(config.model_store, "m") << "relative to the working folder: it does not stand in the file";
  EXPECT_EQ(load_server_config(file_, fixed_environment({{"TS_JOB_QUEUE_SIZE", "x"}})).error().message(),
            "environment variable TS_JOB_QUEUE_SIZE: key 'job_queue_size': expected an integer >= 1, found 'x'");
}

TEST_F(ServerConfigTest, AllowedUrlsComeFromTheEnvironmentOnlyWhenTheFileAllowsThat) {
  const Environment environment = fixed_environment({{"TS_ALLOWED_URLS", "https://.*"}});
  write_file_atomic(file_, "enable_envvars_config=true\n");
  EXPECT_TRUE(load_server_config(file_, environment).value().allowed_urls.empty());
  write_file_atomic(file_, "enable_envvars_config=true\nuse_env_allowed_urls=true\n");
  EXPECT_THAT(load_server_config(file_, environment).value().allowed_urls, ElementsAre("https://.*"));
}

TEST_F(ServerConfigTest, OverridesComeLastAndNeedNoFile) {
  write_file_atomic(file_, "job_queue_size=7\nenable_envvars_config=true\n");
  const Environment environment = fixed_environment({{"TS_JOB_QUEUE_SIZE", "8"}});
  EXPECT_EQ(load_server_config(file_, environment, {"job_queue_size = 9"}).value().job_queue_size, 9);
  EXPECT_THAT(load_server_config("", environment, {"load_models=a,b"}).value().load_models, ElementsAre("a", "b"));
  EXPECT_EQ(load_server_config("", environment, {"job_queue_siz=9"}).error().message(),
            "--set: unknown key 'job_queue_siz'; did you mean 'job_queue_size'?");
  EXPECT_THAT(load_server_config("", environment, {"job_queue_size"}).error().message(), HasSubstr("--set: expected KEY=VALUE"));
}

TEST_F(ServerConfigTest, ModelsSayWhatModelConfigsDoNot) {
  const ServerConfig config =
      load("models={\"a\": {\"1.0\": {\"defaultVersion\": true, \"marName\": \"a.mar\", \"minWorkers\": 2, \"maxWorkers\": 3,\\\n"
           "  \"responseTimeout\": 9}, \"2.0\": {}}}\n").value();
  ASSERT_EQ(config.models.size(), 2u);
  EXPECT_EQ(config.models[0].name, "a");
  EXPECT_EQ(config.models[0].version, "1.0");
  EXPECT_TRUE(config.models[0].is_default);
  EXPECT_EQ(config.models[0].settings.min_workers, 2);
  EXPECT_EQ(config.models[0].settings.max_workers, 3);
  EXPECT_EQ(config.models[0].settings.response_timeout, seconds(9));
  EXPECT_FALSE(config.models[1].is_default);
  EXPECT_FALSE(config.models[1].settings.min_workers);

  EXPECT_THAT(refusal("models={\n"), HasSubstr("config.properties:1: key 'models': not valid JSON"));
  EXPECT_THAT(refusal("models=[1]\n"), HasSubstr("expected {\"NAME\": {\"VERSION\": {...}}}"));
  EXPECT_THAT(refusal("models={\"a\": {\"1.0\": {\"minWorkers\": \"two\"}}}\n"), HasSubstr("a 1.0: minWorkers: expected an integer from 0 to 1024"));
  EXPECT_THAT(refusal("models={\"a\": {\"1.0\": {\"minWorker\": 2}}}\n"), HasSubstr("did you mean 'minWorkers'?"));
  EXPECT_THAT(refusal("models={\"a\": {\"1.0\": {\"minWorkers\": 2, \"maxWorkers\": 1}}}\n"), HasSubstr("maxWorkers"));
}

TEST_F(ServerConfigTest, ASnapshotSaysWhatWasServed) {
  const ServerConfig config =
      load("job_queue_size=7\nmodel_snapshot={\"name\": \"x.cfg\", \"modelCount\": 1, \"created\": 1, \"models\": {\"a\": {\"1.0\": {"
           "\"defaultVersion\": true, \"marName\": \"a.mar\", \"minWorkers\": 2, \"handler\": \"llm\"}}}}\n").value();
  ASSERT_TRUE(config.saved_models);
  ASSERT_EQ(config.saved_models->size(), 1u);
  const SavedModel& saved = config.saved_models->at(0);
  EXPECT_EQ(saved.entry.name, "a");
  EXPECT_EQ(saved.entry.version, "1.0");
  EXPECT_TRUE(saved.entry.is_default);
  EXPECT_EQ(saved.entry.settings.min_workers, 2);
  EXPECT_FALSE(saved.entry.settings.batch_size) << "an older snapshot lacks fields";
  EXPECT_EQ(saved.source, "a.mar");
  EXPECT_EQ(saved.handler, "llm");
  EXPECT_FALSE(load("job_queue_size=7\n").value().saved_models);
  EXPECT_TRUE(load("model_snapshot={}\n").value().saved_models->empty());
}

TEST_F(ServerConfigTest, WhatASnapshotOfAnotherVersionSaysBesidesIsPassedOver) {
  const ServerConfig config =
      load("tsConfigFile=x\njob_queue_size=7\nmodel_snapshot={\"models\": {\"a\": {\"1.0\": {\"marName\": \"a\", \"newField\": [1]}}}}\n").value();
  EXPECT_EQ(config.job_queue_size, 7);
  EXPECT_EQ(config.saved_models->at(0).source, "a");
  EXPECT_THAT(config.notes, ElementsAre(EndsWith("config.properties:1: tsConfigFile: passed over: not known here, and this is a snapshot")));
  EXPECT_THAT(refusal("tsConfigFile=x\n"), HasSubstr("unknown key")) << "only snapshots are written by other versions";
}

TEST_F(ServerConfigTest, ABrokenSnapshotIsOneError) {
  const auto model = [](const std::string& settings) { return "model_snapshot={\"models\": {\"a\": {\"1.0\": " + settings + "}}}\n"; };
  EXPECT_THAT(refusal("model_snapshot={\n"), HasSubstr("config.properties:1: key 'model_snapshot': not a JSON object"));
  EXPECT_THAT(refusal("model_snapshot={\"models\": [1]}\n"), HasSubstr("key 'model_snapshot': expected {\"NAME\""));
  EXPECT_THAT(refusal(model("3")), HasSubstr("a 1.0: expected an object of settings, found number"));
  EXPECT_THAT(refusal(model("{}")), HasSubstr("a 1.0: marName: expected the folder or the archive"));
  EXPECT_THAT(refusal(model("{\"marName\": 1}")), HasSubstr("a 1.0: marName: expected text, found number"));
  EXPECT_THAT(refusal(model("{\"marName\": \"a\", \"minWorkers\": -1}")), HasSubstr("a 1.0: minWorkers: expected an integer from 0 to 1024"));
}

TEST_F(ServerConfigTest, JsonThatIsNestedDeepIsOneError) {
  const std::string deep = std::string(20000, '[') + std::string(20000, ']');
  EXPECT_THAT(refusal("models={\"a\": {\"1.0\": {\"minWorkers\": " + deep + "}}}\n"), HasSubstr("a 1.0: minWorkers: expected an integer"));
  EXPECT_THAT(refusal("models=" + deep + "\n"), HasSubstr("expected {\"NAME\": {\"VERSION\": {...}}}"));
  EXPECT_THAT(refusal("models=" + std::string(20000, '[') + "\n"), HasSubstr("not valid JSON"));
  EXPECT_THAT(refusal("model_snapshot={\"models\": " + deep + "}\n"), HasSubstr("expected {\"NAME\": {\"VERSION\": {...}}}"));
}

TEST_F(ServerConfigTest, TheSettingsThatWereGivenAreKept) {
  write_file_atomic(file_, "job_queue_size=7\nmodel_store=store\nenable_envvars_config=true\n");
  const auto settings = load_server_config(file_, fixed_environment({{"TS_JOB_QUEUE_SIZE", "8"}}), {"grpc_inference_port=9"}).value().settings;
  EXPECT_EQ(settings.at("job_queue_size"), "8") << "the value that counts";
  EXPECT_EQ(settings.at("grpc_inference_port"), "9");
  EXPECT_EQ(settings.at("model_store"), (folder_.path() / "store").string()) << "whole, for a snapshot lies in another folder";
  EXPECT_EQ(settings.count("max_request_size"), 0u);
}

TEST_F(ServerConfigTest, TheFileThatIsReadIsChosenInTorchServesOrder) {
  EXPECT_EQ(choose_config_file("given", fixed_environment({}), "last"), "given");
  EXPECT_EQ(choose_config_file("", fixed_environment({}), "last"), "last");
  EXPECT_EQ(choose_config_file("given", fixed_environment({{"TS_CONFIG_FILE", "other"}})), "other");
  EXPECT_EQ(choose_config_file("given", fixed_environment({})), "given");
}

TEST_F(ServerConfigTest, ReplacesEnvironmentVariables) {
  const ServerConfig config = load("model_store=$$STORE$$/x\ngrpc_inference_port=$$PORT$$$$PORT$$\n").value();
  EXPECT_EQ(config.model_store, "/models/x");
  EXPECT_EQ(config.grpc_inference_port, 7070);
  EXPECT_THAT(refusal("\nmodel_store=$$NOPE$$\n"),
              EndsWith("config.properties:2: key 'model_store': the environment variable NOPE is not set"));
}

TEST_F(ServerConfigTest, SaysWhatIsWrongWhere) {
  EXPECT_THAT(refusal("a=1\n"), HasSubstr("config.properties:1: unknown key 'a'; did you mean"));
  EXPECT_THAT(refusal("\ngrpc_inference_prot=1\n"),
              EndsWith("config.properties:2: unknown key 'grpc_inference_prot'; did you mean 'grpc_inference_port'?"));
  EXPECT_THAT(refusal("grpc_inference_port=70x\n"),
              EndsWith("config.properties:1: key 'grpc_inference_port': expected an integer from 0 to 65535, found '70x'"));
  EXPECT_THAT(refusal("job_queue_size=0\n"), EndsWith("key 'job_queue_size': expected an integer >= 1, found '0'"));
  EXPECT_THAT(refusal("grpc_inference_address=http://x\n"), HasSubstr("expected a host name or an IP address"));
  EXPECT_THAT(refusal("enable_grpc_ssl=true\n"),
              HasSubstr("config.properties:1: key 'enable_grpc_ssl': TLS needs certificate_file and private_key_file"));
  EXPECT_THAT(refusal("certificate_file=c\ninference_address=https://a:1\n"), HasSubstr("config.properties:2: key 'inference_address': TLS needs"));
  EXPECT_THAT(refusal("private_key_file=k\nmanagement_address=https://a:1\n"), HasSubstr("key 'management_address': TLS needs"));
  EXPECT_THAT(refusal("client_ca_file=ca\n"), HasSubstr("key 'client_ca_file': nothing here speaks TLS"));
  EXPECT_THAT(refusal("management_address=http://a\n"), HasSubstr("key 'management_address': expected http://HOST:PORT"));
  EXPECT_THAT(refusal("allowed_urls=https://(\n"), HasSubstr("key 'allowed_urls': 'https://(' is not a regular expression"));
  EXPECT_THAT(refusal("grpc_management_address=a/b\n"), HasSubstr("key 'grpc_management_address': expected a host name"));
  EXPECT_THAT(refusal("token_expiration_min=0\n"), HasSubstr("key 'token_expiration_min': expected"));
  EXPECT_EQ(load_server_config(folder_.path() / "none").error().code(), Code::kNotFound);
}

}  // namespace
}  // namespace penstock::config
